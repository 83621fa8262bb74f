"""What every call passes through, outermost first: telemetry, errors, identity, deadline, admission, rules, key."""

from loremesh_kit.interceptors.admission import AdmissionInterceptor
from loremesh_kit.interceptors.chain import Call, Chain, Interceptor, Proceed
from loremesh_kit.interceptors.deadline import DeadlineInterceptor
from loremesh_kit.interceptors.errors import ErrorInterceptor
from loremesh_kit.interceptors.idempotency import IdempotencyInterceptor
from loremesh_kit.interceptors.identity import IdentityInterceptor
from loremesh_kit.interceptors.telemetry import TelemetryInterceptor
from loremesh_kit.interceptors.validation import ValidationInterceptor

__all__ = [
    "AdmissionInterceptor",
    "Call",
    "Chain",
    "DeadlineInterceptor",
    "ErrorInterceptor",
    "IdempotencyInterceptor",
    "IdentityInterceptor",
    "Interceptor",
    "Proceed",
    "TelemetryInterceptor",
    "ValidationInterceptor",
]
