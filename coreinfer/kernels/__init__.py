"""Triton kernels of one decoding step. Each reads its weights once; what is between them is a few vectors. In ``whole``
there is one of CUDA C++ that does all of a step.

Each of Triton's begins with weights that do not depend on the kernel before it, and only then waits for that one
(``PDL``: programmatic dependent launch, CUDA C++ Programming Guide, 6.2.8.6), so that memory stays busy in between.
Sums over programs are made by whichever finishes last, always in the same order: results do not depend on timing.

Vectors between kernels are float32 and read past the first-level cache, which other programs' writes do not reach.
"""
