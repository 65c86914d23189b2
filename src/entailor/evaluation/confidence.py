"""What comparison.json says of a candidate's confidence: calibration before and after scaling, and abstaining.

Temperatures and thresholds come from validation, what they give from test.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from entailor.evaluation.calibration import (
    CoveragePoint,
    abstaining,
    apply_temperature,
    area_over_coverage,
    coverage_curve,
    expected_calibration_error,
    reliability_bins,
)
from entailor.evaluation.calibration_error import calibration_error, classwise_calibration_error, mean_error
from entailor.evaluation.metrics import Outcome, calibrated, clusters, log_loss, outcome
from entailor.evaluation.variance import Integers
from entailor.runs.record import RunRecord


def confidence_of(records: Sequence[RunRecord], outcomes: Sequence[Outcome]) -> Mapping[str, Any]:
    """Return calibration as is and at the fitted temperature (None where a record has none), and abstaining.

    Abstaining goes by the calibrated confidence where there is one.

    Args:
        records: a candidate's complete trials.
        outcomes: their predictions on test.
    """
    cluster_N = clusters(records[0])
    temperatures = [record.temperature for record in records if record.temperature is not None]
    scaled = None
    if len(temperatures) == len(records):
        scaled = [calibrated(result, one) for result, one in zip(outcomes, temperatures, strict=True)]
    shown = scaled or list(outcomes)
    on_validation = all(record.validation_predictions for record in records)
    curves = [
        _abstaining(record, result, at_temperature=scaled is not None)
        for record, result in zip(records, shown, strict=True)
    ]
    return {
        **_errors(outcomes, cluster_N),
        "calibrated": scaled
        and {
            "temperature": statistics.fmean(temperatures),
            "temperatures": temperatures,
            "log_loss": statistics.fmean(map(log_loss, scaled)),
            "ece": statistics.fmean(expected_calibration_error(one.confidence_N, one.correct_N) for one in scaled),
            **_errors(scaled, cluster_N),
        },
        "thresholds_from": "validation" if on_validation else "test",
        "coverage": [_mean_point(points) for points in zip(*curves, strict=True)],
        "area_over_coverage": statistics.fmean(area_over_coverage(one.confidence_N, one.correct_N) for one in shown),
    }


def _errors(outcomes: Sequence[Outcome], cluster_N: Integers | None) -> Mapping[str, Any]:
    confidence = np.concatenate([result.confidence_N for result in outcomes])
    correct = np.concatenate([result.correct_N for result in outcomes])
    return {
        "calibration_error": asdict(
            mean_error([calibration_error(one.confidence_N, one.correct_N, cluster_N) for one in outcomes])
        ),
        "classwise_calibration_error": statistics.fmean(
            classwise_calibration_error(one, cluster_N) for one in outcomes
        ),
        "reliability": [asdict(one) for one in reliability_bins(confidence, correct)],
    }


def _abstaining(record: RunRecord, result: Outcome, *, at_temperature: bool) -> tuple[CoveragePoint, ...]:
    if not record.validation_predictions:  # an older record
        return coverage_curve(result.confidence_N, result.correct_N)
    validation = outcome(replace(record, predictions=record.validation_predictions))
    if at_temperature and record.temperature is not None:
        validation = replace(
            validation, probabilities_NL=apply_temperature(validation.probabilities_NL, record.temperature)
        )
    return abstaining(validation.confidence_N, result.confidence_N, result.correct_N)


def _mean_point(points: Sequence[CoveragePoint]) -> dict[str, float | None]:
    """Return the means over seeds; of accuracy over those that answer any example."""
    answered = [point.accuracy for point in points if point.accuracy is not None]
    return {
        **{
            name: statistics.fmean(getattr(point, name) for point in points)
            for name in ("wanted", "coverage", "confidence")
        },
        "accuracy": statistics.fmean(answered) if answered else None,
    }
