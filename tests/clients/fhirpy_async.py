"""PyPI fhirpy, its asynchronous client (aiohttp)."""

import asyncio

from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import ResourceNotFound

from journey import BASE, TOKEN, journey

client = AsyncFHIRClient(BASE, authorization=f"Bearer {TOKEN}")
loop = asyncio.new_event_loop()
wait = loop.run_until_complete


def create(record):
    made = client.resource("Patient", **record)
    wait(made.save())
    return dict(made.serialize())


def read(identity):
    return dict(wait(client.resources("Patient").search(_id=identity).get()).serialize())


def update(record):
    changed = client.resource("Patient", **record)
    wait(changed.save())
    return dict(changed.serialize())


def remove(identity):
    wait(client.reference("Patient", identity).delete())


def search(family):
    found = wait(client.resources("Patient").search(family=family).limit(2).fetch_all())
    return [dict(one.serialize()) for one in found]


def is_missing(identity):
    try:
        wait(client.reference("Patient", identity).to_resource())
    except ResourceNotFound:
        return True
    return False


journey("Pyfamily", create, read, update, remove, search, is_missing)
