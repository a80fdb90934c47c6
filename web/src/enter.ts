/** Exchanges the token in the address for a cookie. The part behind # is sent by no program that only previews links. */

const said = document.getElementById('entering') as HTMLElement;

async function enter(): Promise<void> {
  const token = location.hash.slice(1);
  history.replaceState(null, '', location.pathname);
  if (!token) {
    said.textContent = 'This address is not complete. Scan the code in the terminal, or copy the whole address.';
    return;
  }
  const response = await fetch('enter', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ token }),
  });
  if (response.ok) location.replace('./');
  else said.textContent = 'This address was used before, or is of another run. Start deploykit web again for a new one.';
}

enter().catch(() => {
  said.textContent = 'The command does not answer any more.';
});

export {};
