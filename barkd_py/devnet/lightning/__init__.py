"""The Lightning network of devnet: the Ark server's node, and nodes outside Ark that pay and are paid."""
