//! The `ptrace` platform: guests are traced host processes.
