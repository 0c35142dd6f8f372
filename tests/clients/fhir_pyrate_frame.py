"""PyPI fhir-pyrate: pages of a search as one DataFrame. It only reads."""

import json
import os

import requests
from fhir_pyrate import Pirate

from journey import BASE, TOKEN, same

session = requests.Session()
session.headers["Authorization"] = f"Bearer {TOKEN}"
with Pirate(auth=session, base_url=BASE, print_request_url=False) as pirate:
    frame = pirate.steal_bundles_to_dataframe(
        resource_type="Observation",
        request_params={"_count": 5, "_sort": "_id"},
        fhir_paths=[("id", "id"), ("code", "code.coding.code"), ("subject", "subject.reference")],
    )
same(sorted(frame["id"]), sorted(json.loads(os.environ["CHARTGATE_OBSERVATIONS"])), "each record once")
same(frame["code"].notna().all() and frame["subject"].notna().all(), True, "each with code and subject")
print(json.dumps({"created": [], "updated": [], "deleted": []}))
