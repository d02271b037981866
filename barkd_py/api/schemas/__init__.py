"""The JSON of the REST API, by tag: requests as they are read, answers as they are described.

Requests are read through these models (`api.json_body`). Answers are rendered by `api.render` and only
described here, so nothing is validated twice; tests hold the two together. A field that upstream leaves out
when it has no value has a default here, one that is `null` then has none.

Source: protocol sheet 07 §7.
"""
