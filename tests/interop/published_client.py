"""Runs upstream's published REST client, whichever version is on the import path, in a process of its own.

    python published_client.py < calls
    python published_client.py serve HOST TOKEN

The calls are a JSON object: `host`, `token`, and `calls` as [api class, method, keyword arguments]. An
argument `{"model": …, "fields": …}` is made into an object of that model. Printed is a JSON list: for each
call what the client made of the answer, turned back into JSON, or what went wrong.

Told to serve, it makes one call per line: a method's name and its arguments, where the fields of the
request's model are a plain object. A line without a method asks for the names of all methods.
"""

import importlib
import json
import sys
from typing import Any


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        _serve(*sys.argv[2:])
        return
    job = json.load(sys.stdin)
    client = importlib.import_module("barkd_client")
    configuration = client.Configuration(host=job["host"], access_token=job["token"])
    with client.ApiClient(configuration) as connection:
        results = [_call(client, connection, *call) for call in job["calls"]]
    json.dump(results, sys.stdout, default=str)


def _serve(host: str, token: str) -> None:
    client = importlib.import_module("barkd_client")
    apis = _apis(client)
    with client.ApiClient(client.Configuration(host=host, access_token=token)) as connection:
        for line in sys.stdin:
            call = json.loads(line)
            outcome: Any = sorted(apis)
            if call:
                method, arguments = call
                filled = {name: _filled(client, name, value) for name, value in arguments.items()}
                outcome = _call(client, connection, apis[method], method, filled)
            print(json.dumps(outcome, default=str), flush=True)


def _apis(client: Any) -> dict[str, str]:
    """The API class of each method."""
    skipped = ("_with_http_info", "_without_preload_content")
    return {
        method: api
        for api in dir(client)
        if api.endswith("Api")
        for method in dir(getattr(client, api))
        if not method.startswith("_") and not method.endswith(skipped) and method != "api_client"
    }


def _filled(client: Any, name: str, value: Any) -> Any:
    """An argument called `send_request` is a `SendRequest`."""
    if not name.endswith("_request"):
        return value
    return getattr(client, name.title().replace("_", "")).from_dict(value)


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
