//! One semantics: random policies, trees and acts, judged by the reference on one side and by the
//! running kernel on the other.

pub mod acts;
pub mod generate;
pub mod moves;
pub mod random;
