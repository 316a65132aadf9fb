"""Tables for people: aligned text."""


def text_table(header: list[str], rows: list[list]) -> str:
    """Rows for people, aligned: texts to the left, numbers as they are given to the right."""
    lines = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(zip(line, widths)))
        for line in lines
    )
