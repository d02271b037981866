"""Runs upstream's published REST client, whichever version is on the import path, in a process of its own.

    python published_client.py < calls

The calls are a JSON object: `host`, `token`, and `calls` as [api class, method, keyword arguments]. An
argument `{"model": …, "fields": …}` is made into an object of that model. Printed is a JSON list: for each
call what the client made of the answer, turned back into JSON, or what went wrong.
"""

import importlib
import json
import sys
from typing import Any


def main() -> None:
    job = json.load(sys.stdin)
    client = importlib.import_module("barkd_client")
    configuration = client.Configuration(host=job["host"], access_token=job["token"])
    with client.ApiClient(configuration) as connection:
        results = [_call(client, connection, *call) for call in job["calls"]]
    json.dump(results, sys.stdout, default=str)


def _call(client: Any, connection: Any, api: str, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
    filled = {name: _argument(client, value) for name, value in arguments.items()}
    try:
        result = getattr(getattr(client, api)(connection), method)(**filled)
    except client.ApiException as error:
        return {"method": method, "status": error.status, "body": error.body}
    except ValueError as error:  # what generated code raises about an answer that it cannot read
        return {"method": method, "unreadable": str(error)}
    return {"method": method, "result": _json(result)}


def _argument(client: Any, value: Any) -> Any:
    if isinstance(value, dict) and "model" in value:
        return getattr(client, value["model"])(**value["fields"])
    return value


def _json(result: Any) -> Any:
    if isinstance(result, list):
        return [_json(item) for item in result]
    return result.to_dict() if hasattr(result, "to_dict") else result


if __name__ == "__main__":
    main()
