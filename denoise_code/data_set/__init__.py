"""What a data set is, as arrays: interactions, windows over them. No files, no models."""
