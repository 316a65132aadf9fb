"""Evidence that an interaction is noise, and its calibration: functions of arrays. No files, no printing."""
