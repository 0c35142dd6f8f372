//! stub
//! Owns: x. Must never: x. Look next: x.

