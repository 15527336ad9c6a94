"""A plan for more GPUs than are here, simulated: memory, bytes sent and time of a step. No model is loaded."""
