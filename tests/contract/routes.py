"""Operations of barkd's contract that a later milestone serves; for now their paths are unknown."""

NOT_SERVED_YET = frozenset(
    {
        ("get", "/api/v1/fees/lightning/pay"),
        ("get", "/api/v1/fees/lightning/receive"),
        ("post", "/api/v1/fees/offboard"),
        ("get", "/api/v1/fees/offboard-all"),
        ("get", "/api/v1/fees/send-onchain"),
        ("post", "/api/v1/lightning/pay"),
        ("get", "/api/v1/lightning/receives"),
        ("post", "/api/v1/lightning/receives/invoice"),
        ("post", "/api/v1/lightning/receives/invoice/for-address"),
        ("get", "/api/v1/lightning/receives/{identifier}"),
        ("delete", "/api/v1/lightning/receives/{identifier}"),
        ("get", "/api/v1/lightning/sends/{identifier}"),
        ("post", "/api/v1/wallet/bip321"),
        ("post", "/api/v1/wallet/offboard/all"),
        ("post", "/api/v1/wallet/offboard/vtxos"),
        ("post", "/api/v1/wallet/refresh/all"),
        ("post", "/api/v1/wallet/refresh/counterparty"),
        ("post", "/api/v1/wallet/refresh/delegated/vtxos"),
        ("post", "/api/v1/wallet/refresh/vtxos"),
        ("get", "/api/v1/wallet/rounds"),
        ("post", "/api/v1/wallet/send-onchain"),
    }
)
