//! What is on this machine: agents, terminal emulators, and credentials that lie about.
