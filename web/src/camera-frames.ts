/** Says when a video has another frame than the last one taken; one that came meanwhile is not waited for. */

/** A camera that is stopped gives no frame any more. */
const PATIENCE_MS = 500;

export class CameraFrames {
  private fresh = false;
  private wake: () => void = () => undefined;

  constructor(private readonly video: HTMLVideoElement) {
    this.listen();
  }

  private listen(): void {
    const heard = () => {
      this.fresh = true;
      this.wake();
      if (this.video.srcObject) this.listen();
    };
    if ('requestVideoFrameCallback' in this.video) this.video.requestVideoFrameCallback(heard);
    else requestAnimationFrame(heard);
  }

  async next(): Promise<void> {
    if (!this.fresh) {
      await new Promise<void>((resolve) => {
        const patience = setTimeout(resolve, PATIENCE_MS);
        this.wake = () => {
          clearTimeout(patience);
          resolve();
        };
      });
    }
    this.fresh = false;
  }
}
