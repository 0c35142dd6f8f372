"""PyPI fhirclient (SMART), with a token it already has. Its models are strict: an unknown element fails a search."""

from fhirclient.auth import FHIROAuth2Auth
from fhirclient.client import FHIRClient
from fhirclient.models.patient import Patient
from fhirclient.server import FHIRNotFoundException

from journey import BASE, TOKEN, journey, same

server = FHIRClient(settings={"app_id": "test", "api_base": BASE}).server
server.get_capability()
same(server.capabilityStatement.fhirVersion, "4.0.1", "the CapabilityStatement")
server.auth = FHIROAuth2Auth({"access_token": TOKEN})


def create(record):
    return Patient(record).create(server)


def read(identity):
    return Patient.read(identity, server).as_json()


def update(record):
    return Patient(record).update(server)


def remove(identity):
    Patient.read(identity, server).delete(server)


def search(family):
    found = Patient.where({"family": family, "_count": "2"}).perform_resources_iter(server)
    return [one.as_json() for one in found]


def is_missing(identity):
    try:
        Patient.read(identity, server)
    except FHIRNotFoundException:
        return True
    return False


journey("Pysmartfamily", create, read, update, remove, search, is_missing)
