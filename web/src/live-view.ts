/** The controls of the live view. */

import type { Background } from './composite';
import { element } from './dom';
import { Live } from './live';
import type { Plan } from './plan';

export class LiveView {
  private readonly live: Live;
  private readonly camera = element<HTMLButtonElement>('camera');
  private readonly artifact = element<HTMLSelectElement>('artifact');
  private readonly status = element('live-status');
  private image: ImageBitmap | null = null;

  constructor(private readonly plan: Plan) {
    this.live = new Live(plan, (message) => (this.status.textContent = message));
    for (const [index, subject] of plan.subjects.entries()) this.artifact.add(new Option(subject.label, String(index)));
    this.artifact.addEventListener('change', () => void this.select());
    this.camera.addEventListener('click', () => void this.toggle());
    element('facing').addEventListener('change', () => void this.restart());
    for (const id of ['colour', 'image', 'mirror']) element(id).addEventListener('input', () => void this.changed(id));
    element('controls').addEventListener('submit', (event) => event.preventDefault());
    document.getElementsByName('background').forEach((one) => one.addEventListener('change', () => void this.changed(one.id)));
  }

  select(): Promise<void> {
    return this.live.select(this.plan.subjects[Number(this.artifact.value)]);
  }

  /** Ends the camera and the file, for a benchmark to have the device for itself. */
  release(): void {
    this.live.release();
    this.named();
  }

  private async changed(id: string): Promise<void> {
    const file = element<HTMLInputElement>('image').files?.[0];
    if (id === 'image' && file) {
      try {
        this.image = await createImageBitmap(file);
        this.choose('image');
      } catch {
        this.status.textContent = `${file.name} is no image that this browser reads`;
      }
    }
    if (id === 'colour') this.choose('colour');
    this.live.background = this.background();
    this.live.mirrored = element<HTMLInputElement>('mirror').checked;
    await this.live.redraw();
  }

  private choose(kind: string): void {
    const radio = document.querySelector<HTMLInputElement>(`input[name=background][value=${kind}]`);
    if (radio) radio.checked = true;
  }

  private background(): Background {
    const kind = document.querySelector<HTMLInputElement>('input[name=background]:checked')?.value;
    if (kind === 'blur' || kind === 'mask') return { kind };
    if (kind === 'image') return { kind, image: this.image };
    return { kind: 'colour', colour: element<HTMLInputElement>('colour').value };
  }

  private async toggle(): Promise<void> {
    if (this.live.usesCamera) this.live.stopCamera();
    else await this.start();
    this.named();
  }

  private async restart(): Promise<void> {
    if (!this.live.usesCamera) return;
    this.live.stopCamera();
    await this.start();
  }

  private async start(): Promise<void> {
    try {
      await this.live.startCamera(element<HTMLSelectElement>('facing').value);
      this.status.textContent = 'the camera runs';
    } catch (error) {
      this.status.textContent = `no camera: ${error instanceof Error ? error.message : error}`;
    }
  }

  private named(): void {
    this.camera.textContent = this.live.usesCamera ? 'Stop camera' : 'Start camera';
  }
}
