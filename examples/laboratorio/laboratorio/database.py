"""database (5003): REST over the airlines, airports and planes tables. A write invalidates cached answers of /data."""

from typing import Annotated, Any, cast

import asyncpg
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from escala import Problem, database
from laboratorio.caches import flights
from laboratorio.service import Limit, Page, service

Text = Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f]+$")]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{1,8}$")]
PathKey = Annotated[str, Path(pattern=r"^[A-Za-z0-9]{1,8}$")]
Count = Annotated[int, Field(ge=0, le=100_000)]


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Airline(Row):
    carrier: Key
    name: Text


class Airport(Row):
    faa: Key
    name: Text
    lat: float = Field(ge=-90, le=90)
    lon: float = Field(ge=-180, le=180)
    alt: int = Field(ge=-2000, le=30_000)
    tz: int = Field(ge=-12, le=14)
    dst: Text
    tzone: Text | None = None


class Plane(Row):
    tailnum: Key
    year: int | None = Field(default=None, ge=1900, le=2100)
    type: Text
    manufacturer: Text
    model: Text
    engines: Count
    seats: Count
    speed: Count | None = None
    engine: Text


class Table:
    """The SQL statements of one table. Column names come from the model; values are passed as parameters."""

    def __init__(self, name: str, model: type[Row]) -> None:
        self.name = name
        self.columns = list(model.model_fields)
        self.key = self.columns[0]
        self.adapters: dict[str, TypeAdapter[Any]] = {
            column: TypeAdapter(cast(Any, Annotated[field.annotation, field]))
            for column, field in model.model_fields.items()
        }
        places = ", ".join(f"${number}" for number in range(1, len(self.columns) + 1))
        changes = ", ".join(f"{column} = ${number}" for number, column in enumerate(self.columns, start=1))
        every = ", ".join(self.columns)
        self.insert = f"insert into {name} ({every}) values ({places})"
        self.update = f"update {name} set {changes} where {self.key} = ${len(self.columns) + 1} returning {self.key}"
        self.select = f"select {every} from {name}"
        self.delete = f"delete from {name} where {self.key} = $1 returning {self.key}"

    def filters(self, request: Request) -> dict[str, Any]:
        """Return the conditions of the query string: a value for each column that it names."""
        conditions: dict[str, Any] = {}
        for column, text in request.query_params.items():
            if column in ("limit", "page"):
                continue
            if column not in self.adapters:
                raise Problem(422, f"{self.name} has no column {column!r} to filter by.", choices=self.columns)
            try:
                conditions[column] = self.adapters[column].validate_strings(text)
            except ValidationError as error:
                raise Problem(422, f"{column}: {error.errors()[0]['msg']}.") from None
        return conditions


def resource(name: str, model: type[Row]) -> APIRouter:
    """Return the routes of one table: list, get one, create, replace, delete."""
    table = Table(name, model)
    router = APIRouter(prefix=f"/db/{name}", tags=[name])

    @router.get("")
    async def find(request: Request, limit: Limit = 50, page: Page = 1) -> dict[str, Any]:
        conditions = table.filters(request)
        where = " and ".join(f"{column} = ${number}" for number, column in enumerate(conditions, start=1)) or "true"
        values = list(conditions.values())
        window = f"order by {table.key} limit ${len(values) + 1} offset ${len(values) + 2}"
        async with database.connection() as connection:
            rows = await connection.fetch(f"{table.select} where {where} {window}", *values, limit, (page - 1) * limit)
            total = await connection.fetchval(f"select count(*) from {name} where {where}", *values)
        return {"items": [dict(row) for row in rows], "page": page, "limit": limit, "total": total}

    @router.get("/{key}")
    async def get(key: PathKey) -> dict[str, Any]:
        async with database.connection() as connection:
            row = await connection.fetchrow(f"{table.select} where {table.key} = $1", key.upper())
        if row is None:
            raise _missing(table, key)
        return dict(row)

    @router.post("", status_code=201)
    async def create(response: Response, row: model) -> dict[str, Any]:  # type: ignore[valid-type]
        values = row.model_dump()  # type: ignore[attr-defined]
        try:
            async with database.connection() as connection:
                await connection.execute(table.insert, *values.values())
        except asyncpg.UniqueViolationError:
            raise Problem(409, f"{name} already has {values[table.key]}; use PUT to replace it.") from None
        await flights.invalidate(name)
        response.headers["Location"] = f"/db/{name}/{values[table.key]}"
        return dict(values)

    @router.put("/{key}")
    async def replace(key: PathKey, row: model) -> dict[str, Any]:  # type: ignore[valid-type]
        values = row.model_dump()  # type: ignore[attr-defined]
        if values[table.key] != key.upper():
            raise Problem(422, f"The path says {key.upper()}, the body {values[table.key]}.")
        async with database.connection() as connection:
            if await connection.fetchval(table.update, *values.values(), key.upper()) is None:
                raise _missing(table, key)
        await flights.invalidate(name)
        return dict(values)

    @router.delete("/{key}", status_code=204)
    async def delete(key: PathKey) -> None:
        try:
            async with database.connection() as connection:
                if await connection.fetchval(table.delete, key.upper()) is None:
                    raise _missing(table, key)
        except asyncpg.ForeignKeyViolationError:
            raise Problem(409, f"Flights refer to {key.upper()}, so it cannot be deleted.") from None
        await flights.invalidate(name)

    return router


def _missing(table: Table, key: str) -> Problem:
    return Problem(404, f"{table.name} has no {key.upper()}.")


TABLES: dict[str, type[Row]] = {"airlines": Airline, "airports": Airport, "planes": Plane}

app = service("database")
for _name, _model in TABLES.items():
    app.include_router(resource(_name, _model))


@app.get("/db")
async def tables() -> dict[str, list[str]]:
    """List the tables."""
    return {"tables": list(TABLES)}
