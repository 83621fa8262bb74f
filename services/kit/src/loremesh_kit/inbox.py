"""The inbox: a message whose effect is committed has none the second time."""

from psycopg import AsyncConnection

from loremesh_kit import identity
from loremesh_kit.postgres import Row

_REMEMBER = """
INSERT INTO inbox (tenant, consumer, message_id) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING RETURNING message_id
"""


async def first_time(connection: AsyncConnection[Row], *, consumer: str, message_id: str) -> bool:
    """Remember the message in the transaction of its effect; False when `consumer` had it before: do nothing then."""
    cursor = await connection.execute(_REMEMBER, [identity.current().tenant, consumer, message_id])
    return await cursor.fetchone() is not None
