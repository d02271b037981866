"""Operations of barkd's contract that a later milestone serves; for now their paths are unknown."""

NOT_SERVED_YET = frozenset(
    {
        ("get", "/api/v1/fees/lightning/pay"),
        ("get", "/api/v1/fees/lightning/receive"),
        ("post", "/api/v1/lightning/pay"),
        ("get", "/api/v1/lightning/receives"),
        ("post", "/api/v1/lightning/receives/invoice"),
        ("post", "/api/v1/lightning/receives/invoice/for-address"),
        ("get", "/api/v1/lightning/receives/{identifier}"),
        ("delete", "/api/v1/lightning/receives/{identifier}"),
        ("get", "/api/v1/lightning/sends/{identifier}"),
        ("post", "/api/v1/wallet/bip321"),
    }
)
