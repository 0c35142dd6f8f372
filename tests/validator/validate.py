"""Validates R4 JSON by the models of fhir.resources, line by line.

Owns: one question a line, a JSON list of records as text; one answer a line, a JSON list of what is wrong with each, empty
where nothing is, null where the library itself breaks down and cannot say. The models are those of R4B, the nearest that the library has: what is not valid as given is not judged.
Must never: look anything up; it has no network and no terminology.
"""

import json
import re
import sys

from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError


def is_marked(error, text):
    """A mandatory choice has no value, but its twin says why: R4 allows that (JSON, 2.6.2.3), the library does not see it."""
    choices = re.search(r"Expect any of field value from this list \[(.*?)\]", error["msg"])
    names = re.findall(r"'(\w+)'", choices[1]) if choices else []
    return any(f'"_{name}"' in text for name in names)


def problems(text):
    """What is wrong with one record: places and kinds, no values."""
    record = json.loads(text)
    try:
        get_fhir_model_class(record["resourceType"]).model_validate(record)
    except ValidationError as error:
        return [f"{'.'.join(map(str, one['loc']))}: {one['type']}" for one in error.errors() if not is_marked(one, text)]
    except (KeyError, ValueError):  # no model of that type
        return ["resourceType"]
    except AttributeError:  # its rule for mandatory lists takes them to be there
        return None
    return []


for line in sys.stdin:
    print(json.dumps([problems(text) for text in json.loads(line)]), flush=True)
