//! Empty: the dependencies are what matters.
