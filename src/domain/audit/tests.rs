//! Laws of the encoding: golden bytes, round trip, bounds.
