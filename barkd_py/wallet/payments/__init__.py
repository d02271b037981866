"""What a text names that somebody wants to pay, pure: `request` classifies it, `bip321` reads URIs, `options`
lists every way to pay."""
