//! What the side-by-side bench rests on: answers, the drain that checks them, the judge.

mod answers;
mod judge;
