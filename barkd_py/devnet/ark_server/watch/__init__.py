"""What the server makes of new blocks: VTXOs that reached the chain, preimages, sweeps of what expired."""
