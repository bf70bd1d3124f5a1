export interface SidebarGroup {
  readonly text: string;
  readonly collapsed?: boolean;
  readonly items: readonly { readonly text: string; readonly link: string }[];
}

export function pagesOf(folder: string): string[];
export function titleOf(text: string): string;
export function sidebarOf(folder: string): SidebarGroup[];
