//! What the side-by-side bench rests on: answers, the drain that checks them, the judges.

mod answers;
mod instructions;
mod judge;
