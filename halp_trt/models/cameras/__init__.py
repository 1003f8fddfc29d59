"""Networks from several cameras to one map seen from above: calibrations, frames, places of the map, the network."""
