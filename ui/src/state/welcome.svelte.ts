let unfinished = $state(false);

/** The first run, as long as this window is open: it stays in the sidebar until it is finished. */
export const welcome = {
  get unfinished() {
    return unfinished;
  },
  set unfinished(yes: boolean) {
    unfinished = yes;
  },
};
