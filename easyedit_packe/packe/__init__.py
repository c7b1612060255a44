"""The paper's method, to be read in its order.

`tracing` scores nodes and chooses paths (section 3.2, Eq. 6); `objective` has the two terms of Eq. 7; `slices` are the
few vectors that are trained beside the frozen matrices; `rectify` trains them (section 3.3), with the backward passes
of `terms`, and makes the change a patch; `rounding` says what a narrow dtype took of it.
"""
