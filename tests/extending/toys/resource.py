"""A resource of one's own: the energy of a layer, 1 pJ for an operation, 20 pJ for a byte that is moved."""

from halp_trt.planning.resources import RESOURCES, flops, memory_bytes


def nanojoules(spec, batch_size):
    return 1e-3 * flops(spec, batch_size) + 20e-3 * memory_bytes(spec, batch_size)


RESOURCES["nanojoules"] = nanojoules
