"""Tables as text, aligned so that they read well as they are."""

from collections.abc import Mapping, Sequence


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows with the same columns as a Markdown table; columns without any entry are left out."""
    rows = [{name: cell.replace("|", "\\|") for name, cell in row.items()} for row in rows]
    columns = _columns(rows)
    for column in columns:
        column.insert(1, "-" * max(map(len, column)))
    return "\n".join(f"| {' | '.join(line)} |" for line in _aligned(columns))


def plain(rows: Sequence[Mapping[str, str]], *, heads: bool = True) -> str:
    """The same for a terminal, with or without a line of headings."""
    columns = _columns(rows)
    lines = _aligned([column if heads else column[1:] for column in columns])
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _columns(rows: Sequence[Mapping[str, str]]) -> list[list[str]]:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [[name, *(row.get(name, "") for row in rows)] for name in names]
    return [column for column in columns if any(column[1:])]


def _aligned(columns: list[list[str]]) -> list[tuple[str, ...]]:
    """Columns of equal length -> lines, each cell as wide as its column."""
    widths = [max(map(len, column)) for column in columns]
    padded = [
        [cell.ljust(width) for cell in column]
        for column, width in zip(columns, widths, strict=True)
    ]
    return list(zip(*padded, strict=True))
