"""What runs a network: PyTorch as it is, PyTorch compiled, OpenVINO or ONNX Runtime.

A runner is given a network and an `InferenceSpec`; it knows no estimator, keeps no network, and may be called by any number of
threads at once. One other than PyTorch's own takes a network apart into a graph for frames of one size. That takes seconds to a
minute, so it is done once for each network, weights, options and size, and kept in the user's cache folder (`builds.folder`).
"""
