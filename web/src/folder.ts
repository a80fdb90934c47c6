/** Where the page lies, and the plan beside it. */

import { PLAN_VERSION, type Plan } from './plan';

/** The folder of the page, with a slash at its end. */
export const BASE = new URL('./', document.baseURI).href;

export async function readPlan(): Promise<Plan> {
  const response = await fetch(`${BASE}plan.json`, { cache: 'no-store' });
  if (!response.ok) throw new Error(`The plan cannot be read: ${response.status} ${response.statusText}`);
  const plan = (await response.json()) as Plan;
  if (plan.version !== PLAN_VERSION) throw new Error(`The page is of version ${PLAN_VERSION}, the plan of version ${plan.version}`);
  return plan;
}
