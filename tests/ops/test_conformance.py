"""The backends that run on a CPU compute the scan: the shared suite over each of them."""

from tests.ops.conformance import ScanConformance


class TestReference(ScanConformance):
    backend = "reference"
    # Autograd runs through its steps: it keeps every state, and computes gradients as autocast says.
    test_the_backward_keeps_few_states = None  # type: ignore[assignment]
    test_autocast_does_not_touch_the_gradients = None  # type: ignore[assignment]


class TestTorch(ScanConformance):
    backend = "torch"


class TestNumba(ScanConformance):
    backend = "numba"
