"""Slow, obvious versions of the kernels in plain torch, and the made scenes and tolerances to hold the kernels to.

Nothing here uses the product's code: a formula written twice, independently, is what makes the comparison worth
something. Every function works in the dtype of its inputs (float64 is the truth, float32 is the yardstick of the
tolerance rule) and is differentiable by autograd. Conventions are the product's: OpenCV axes, pixel centres at +0.5,
quaternions wxyz.
"""
