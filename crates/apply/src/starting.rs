//! From the start until init is the workload.

use crate::failure::{Failure, Result};
use crate::parent::at_step;
use crate::wire::{self, Said};
use coracle_plan::steps::Plan;
use std::os::fd::BorrowedFd;

/// Waits until the workload has begun. Errors: what failed; of `plan`, when the step is to be named.
pub(crate) fn wait(wire: BorrowedFd, plan: Option<&Plan>) -> Result<()> {
    match wire::hear(wire)? {
        Said::Nothing => Ok(()),
        Said::Failed(step, failure) => Err(plan.map_or(failure.clone(), |plan| at_step(plan, step, failure))),
        other => Err(Failure::says(format!("the container's init said {other:?} instead of starting"))),
    }
}
