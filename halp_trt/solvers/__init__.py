"""Mathematics of planning: problems, solvers with bounds, and the frontier. Numbers alone; no layer, no framework."""
