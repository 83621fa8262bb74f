"""How often agents ask their models, in Postgres. Row-level security adds the tenant to every statement."""

from loremesh_kit.postgres import Database

_SECONDS = 60.0

# Who finds the minute full changes nothing.
_BEAT = """
WITH clock AS (SELECT extract(epoch FROM clock_timestamp())::float8 / %(seconds)s AS minutes), counted AS (
    INSERT INTO agent_minutes (agent_id, minute, asked) SELECT %(agent_id)s, floor(minutes), 1 FROM clock
    ON CONFLICT (tenant, agent_id) DO UPDATE SET
        asked = CASE WHEN agent_minutes.minute >= excluded.minute THEN agent_minutes.asked + 1 ELSE 1 END,
        minute = greatest(agent_minutes.minute, excluded.minute)
    WHERE agent_minutes.minute < excluded.minute OR agent_minutes.asked < %(limit)s
    RETURNING 1
)
SELECT CASE WHEN EXISTS (SELECT FROM counted) THEN 0 ELSE (floor(minutes) + 1 - minutes) * %(seconds)s END::float8
    AS wait
FROM clock
"""


class PostgresMinutes:
    """The table `agent_minutes`; see ports.Metronome. A minute is one of the database's clock."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def beat(self, agent_id: str, *, limit: int) -> float:
        """See ports.Metronome."""
        parameters = {"agent_id": agent_id, "limit": limit, "seconds": _SECONDS}
        (row,) = await self._database.fetch(_BEAT, parameters)
        return float(row["wait"])
