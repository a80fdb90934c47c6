/** What the browser says about itself and the device, and how the device is doing. */

export interface Facts {
  browser: string;
  system: string;
  architecture: string;
  model: string;
  cores: number;
  memory_gb: number | null;
  gpu: string;
  isolated: boolean;
  user_agent: string;
}

interface Brand {
  brand: string;
  version: string;
}

interface AgentData {
  brands: Brand[];
  platform: string;
  getHighEntropyValues(hints: string[]): Promise<{
    architecture?: string;
    bitness?: string;
    model?: string;
    platformVersion?: string;
    fullVersionList?: Brand[];
  }>;
}

type Navigators = Navigator & { userAgentData?: AgentData; deviceMemory?: number; getBattery?: () => Promise<Battery> };

interface Battery {
  charging: boolean;
  level: number;
}

export async function readFacts(): Promise<Facts> {
  const it = navigator as Navigators;
  const said = await it.userAgentData
    ?.getHighEntropyValues(['architecture', 'bitness', 'model', 'platformVersion', 'fullVersionList'])
    .catch(() => ({}) as Record<string, never>);
  const version = said?.platformVersion ? ` ${said.platformVersion}` : '';
  return {
    browser: browserName(said?.fullVersionList ?? it.userAgentData?.brands ?? []),
    system: it.userAgentData ? `${it.userAgentData.platform}${version}` : systemOf(it.userAgent),
    architecture: [said?.architecture, said?.bitness].filter(Boolean).join('-') || 'unknown',
    model: said?.model ?? '',
    cores: it.hardwareConcurrency || 1,
    memory_gb: it.deviceMemory ?? null,
    gpu: await gpuName(),
    isolated: self.crossOriginIsolated,
    user_agent: it.userAgent,
  };
}

function browserName(brands: Brand[]): string {
  // Without a window it is the same browser.
  const real = brands.filter((one) => !/not.?a.?brand|headless/i.test(one.brand));
  const own = real.find((one) => one.brand !== 'Chromium') ?? real[0];
  if (own) return `${own.brand} ${own.version.split('.').slice(0, 2).join('.')}`;
  const firefox = /Firefox\/([\d.]+)/.exec(navigator.userAgent);
  const safari = /Version\/([\d.]+).*Safari/.exec(navigator.userAgent);
  return firefox ? `Firefox ${firefox[1]}` : safari ? `Safari ${safari[1]}` : 'another browser';
}

function systemOf(agent: string): string {
  const found = /(iPhone OS [\d_]+|CPU OS [\d_]+|Android [\d.]+|Mac OS X [\d_.]+|Windows NT [\d.]+|Linux)/.exec(agent);
  return found ? found[1].replace(/_/g, '.') : 'unknown';
}

async function gpuName(): Promise<string> {
  const adapter = await (navigator as { gpu?: GPU }).gpu?.requestAdapter().catch(() => null);
  return adapter ? [adapter.info.vendor, adapter.info.architecture].filter(Boolean).join(' ') || 'not named' : '';
}

export interface Condition {
  time_s: number;
  battery_percent: number | null;
  on_battery: boolean | null;
}

/** Seconds on the clock that the page shares with its workers. */
export const clock = () => (performance.timeOrigin + performance.now()) / 1000;

/** Reads the battery, where the browser tells of it. */
export class Conditions {
  private battery: Battery | null = null;

  async start(): Promise<void> {
    this.battery = (await (navigator as Navigators).getBattery?.().catch(() => null)) ?? null;
  }

  read(): Condition {
    return {
      time_s: clock(),
      battery_percent: this.battery ? this.battery.level * 100 : null,
      on_battery: this.battery ? !this.battery.charging : null,
    };
  }
}
