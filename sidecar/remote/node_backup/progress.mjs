// How far a backup, a restore or a check has come, and the place where each is cancelled: the twin of
// sidecar/backup/progress.py.

import { Trouble } from "./errors.mjs";
import { isStopAsked } from "./watchdog.mjs";

/** Written by the work; `look` is called with each step. Counts are of files and of bytes of their contents. */
export class Progress {
    #look;
    phase = "snapshot";
    filesCopied = 0;
    bytesCopied = 0;
    filesTotal = 0;
    bytesTotal = 0;
    // Relative to the top of the tree.
    currentPath = null;
    // False while stopping would leave less than finishing does.
    mayBeCancelled = true;

    constructor(look) {
        this.#look = look;
    }

    /** Count bytes that are done. Throws if the work is not wanted any more. */
    step(sizeBytes = 0) {
        this.bytesCopied += sizeBytes;
        if (this.mayBeCancelled && isStopAsked()) {
            throw new Trouble("cancelled", "cancelled");
        }
        this.#look();
    }

    /** Begin to count anew, with what is to come. */
    expect(files, sizeBytes) {
        this.filesCopied = this.bytesCopied = 0;
        [this.filesTotal, this.bytesTotal] = [files, sizeBytes];
    }

    /** Count a file that is done, and put the total right if it was of another size than expected. */
    doneWith(expectedBytes, doneBytes) {
        this.filesCopied += 1;
        this.bytesTotal += doneBytes - expectedBytes;
    }
}

/** The progress of work that is part of the first phase of another. */
export class ProgressWithin extends Progress {
    constructor(whole) {
        super(() => {
            [whole.phase, whole.currentPath] = ["snapshot", this.currentPath];
            [whole.filesCopied, whole.filesTotal] = [this.filesCopied, this.filesTotal];
            [whole.bytesCopied, whole.bytesTotal] = [this.bytesCopied, this.bytesTotal];
            whole.step();
        });
    }
}
