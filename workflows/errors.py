"""Errors of the rules at the workflow's edge: an `ApplicationError` that reaches the caller at once, never a retry."""

from __future__ import annotations

from temporalio.exceptions import ApplicationError

from orchestrator.domain.errors import SluiceError


def refusal(error: SluiceError) -> ApplicationError:
    """The error as callers of an update get it: `type` is the code, `details` the list of reasons."""
    reasons = [reason.as_dict() for reason in error.reasons]
    return ApplicationError(error.detail, reasons, type=error.code, non_retryable=True)
