//! A day with the window open.
