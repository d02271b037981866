"""Rounds: the engine that holds them, participations in person and delegated, forfeits for the new coins."""
