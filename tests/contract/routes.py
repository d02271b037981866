"""Operations of barkd's contract that a later milestone serves; for now their paths are unknown."""

NOT_SERVED_YET = frozenset(
    {
        ("get", "/api/v1/fees/lightning/pay"),
        ("post", "/api/v1/lightning/pay"),
        ("get", "/api/v1/lightning/sends/{identifier}"),
        ("post", "/api/v1/wallet/bip321"),
    }
)
