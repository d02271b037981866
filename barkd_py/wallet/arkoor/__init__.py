"""Payments to Ark addresses. `sends` is the flow; `package` is the cosigning that other flows use too."""
